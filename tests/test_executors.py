"""Executors: the same records from all of them, and none lost to a worker, or a command, that dies."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_work
import pytest
import torch
from conftest import BASE, TINY, rows, run_job, runner
from fake_work import DIES, DIES_ONCE, DIVERGES, FINE, GIVES_UP, LINGERS, RAISES, RAISES_ONCE
from test_cli import QUICK, Run
from test_resume import measured
from test_store import row

from maldrop_cli.__main__ import run
from maldrop_cli.data.load import ImageData
from maldrop_cli.executors import Execution, open_executor, ray_cluster, serial, visible_gpus
from maldrop_cli.executors.processes import describe_exit, processes
from maldrop_cli.names import Executor, MaldropError
from maldrop_cli.record import RunRecord, Status
from maldrop_cli.runs.events import Ended, Event, Progressed, Retried, Started, Waiting
from maldrop_cli.runs.store import Store
from maldrop_cli.sweep.job_queue import JobQueue, RetryPolicy, stopped_by_signals

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


class Queue(JobQueue):
    """Of runs that differ in their seed; keeps all that it was told."""

    def __init__(self, seeds: Sequence[int], policy: RetryPolicy | None = None) -> None:
        self.events: list[Event] = []
        plan = [replace(BASE, seed=seed) for seed in seeds]
        super().__init__(
            plan,
            policy or RetryPolicy(),
            self.events.append,
            lambda config: fake_work.record(config, Status.UNFINISHED),
            lambda config, reason: fake_work.record(config, Status.FAILED, reason),
        )

    def statuses(self) -> list[Status]:
        return [record.status for record in self.records()]

    def started(self) -> list[int]:
        return [event.job.config.seed for event in self.events if isinstance(event, Started)]


# --- the queue, and what executors do with it -----------------------------------------------------------------------


def test_the_order_is_that_of_the_plan_whatever_ends_first() -> None:
    queue = Queue([30, 10, 20])
    jobs = list(iter(queue.take, None))
    for job in reversed(jobs):
        queue.ended(Ended(job, fake_work.record(job.config), False))
    assert [record.config.seed for record in queue.records()] == [30, 10, 20]
    assert set(queue.statuses()) == {Status.DONE}


def test_what_is_there_already_is_not_handed_out() -> None:
    queue = Queue([1, 2, 3])
    queue.skip_finished(lambda config: fake_work.record(config) if config.seed == 2 else None)
    assert [job.config.seed for job in iter(queue.take, None)] == [1, 3]
    assert queue.statuses() == [Status.UNFINISHED, Status.DONE, Status.UNFINISHED]


@pytest.mark.parametrize(
    ("retries", "status", "tries"), [(None, Status.FAILED, 1), (0, Status.FAILED, 1), (1, Status.DONE, 2)]
)
def test_what_raises_is_tried_again_if_asked(retries: int | None, status: Status, tries: int) -> None:
    queue = Queue([RAISES_ONCE, FINE], RetryPolicy(retries))
    serial(queue, fake_work.open_work())
    assert queue.statuses() == [status, Status.DONE]
    assert queue.started().count(RAISES_ONCE) == tries


@pytest.mark.parametrize("bad", [RAISES, DIVERGES])
def test_fail_fast_leaves_the_rest_for_the_next_time(bad: int) -> None:
    queue = Queue([FINE, bad, FINE + 10], RetryPolicy(fail_fast=True))
    serial(queue, fake_work.open_work())
    assert queue.started() == [FINE, bad]
    assert queue.statuses()[2] is Status.UNFINISHED
    patient = Queue([bad, FINE])
    serial(patient, fake_work.open_work())
    assert patient.statuses()[1] is Status.DONE


def test_what_another_process_trains_is_put_off_to_the_end() -> None:
    queue = Queue([1, 2])
    first = queue.take()
    assert first
    assert not first.wait
    queue.ended(Ended(first, fake_work.record(first.config, Status.UNFINISHED), False))
    assert [(job.config.seed, job.wait) for job in iter(queue.take, None)] == [(2, False), (1, True)]


@posix
def test_ctrl_c_once_stops_after_the_epoch_and_twice_at_once() -> None:
    queue, said = Queue([1]), []
    before = signal.getsignal(signal.SIGINT)
    with stopped_by_signals(queue, lambda: said.append("stopping")) as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert (interrupted(), queue.stopping, queue.take(), said) == (True, True, None, ["stopping"])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@posix
def test_a_run_whose_worker_dies_has_another_try_and_the_others_go_on() -> None:
    queue = Queue([DIES_ONCE, FINE, DIES, RAISES, FINE + 10, DIVERGES])
    processes(queue, fake_work.open_work, 2)
    done, failed = Status.DONE, Status.FAILED
    assert queue.statuses() == [done, done, failed, failed, done, Status.DIVERGED]
    assert "its worker was killed by SIGKILL" in queue.records()[2].reason
    assert sorted(queue.started()) == sorted([DIES_ONCE, DIES_ONCE, FINE, DIES, DIES, RAISES, FINE + 10, DIVERGES])
    assert sorted(event.job.number for event in queue.events if isinstance(event, Retried)) == [0, 2]


@posix
def test_without_retries_a_killed_run_has_failed() -> None:
    queue = Queue([DIES_ONCE], RetryPolicy(0))
    processes(queue, fake_work.open_work, 1)
    assert queue.statuses() == [Status.FAILED]


@posix
def test_workers_stop_when_told_and_no_job_is_begun_any_more() -> None:
    queue = Queue([LINGERS, LINGERS + 10, FINE])
    tell = queue.tell

    def stop_at_the_first(event: Event) -> None:
        tell(event)
        queue.stop()

    queue.tell = stop_at_the_first
    processes(queue, fake_work.open_work, 1)
    assert queue.started() == [LINGERS]
    assert queue.statuses() == [Status.UNFINISHED] * 3


def test_workers_that_cannot_work_end_the_command() -> None:
    with pytest.raises(MaldropError, match="the data are gone"):
        processes(Queue([FINE]), fake_work.open_nothing, 1)
    with pytest.raises(MaldropError, match="the disk is full"):
        processes(Queue([GIVES_UP, LINGERS]), fake_work.open_work, 2)


@posix
def test_workers_that_die_at_birth_are_not_begun_for_ever() -> None:
    with pytest.raises(MaldropError, match=r"workers end before .*SIGKILL.*--executor serial needs none"):
        processes(Queue([FINE]), fake_work.open_and_die, 1)


def test_gpus_go_round() -> None:
    queue = Queue([10, 20, 30])
    processes(queue, fake_work.open_work, 3, gpus=["4", "7"])
    assert {record.reason for record in queue.records()} <= {"4", "7"}
    one = Queue([10])
    processes(one, fake_work.open_work, 1, gpus=["4", "7"])
    assert one.records()[0].reason == "4"


def test_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5a")
    assert visible_gpus() == ["3", "GPU-5a"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert visible_gpus() == []


def test_each_worker_has_a_gpu_of_its_own_unless_one_is_named() -> None:
    gpu = torch.device("cuda:0")
    for name, expected in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "device_count", lambda: 2)
            execution = Execution(device=name, workers=2)
            with open_executor(execution, gpu, 5) as executor:
                assert (executor.device, executor.workers, execution.threads_per_run) == (expected, 2, 1)


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "SIGKILL, for want of memory perhaps"), (-11, "killed by SIGSEGV"), (-200, "signal 200"), (3, "exit code 3")],
)
def test_how_a_worker_died(code: int, words: str) -> None:
    assert words in describe_exit(code)


# --- two processes and one run ---------------------------------------------------------------------------------------


def test_the_second_waits_for_the_first_and_takes_its_record(
    tiny: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maldrop_cli.runs.runner.TELL_SECONDS", 0.0)
    second = runner(tiny, tmp_path)
    store, record = second.store, second.blank(BASE)
    held, waits, followed = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with store.lock(record.run_id) as locked:
            assert locked
            store.start(record)
            held.set()
            assert waits.wait(30)
            store.append(record.run_id, row(1))
            assert followed.wait(30)
            store.finish(replace(record, epochs=(row(1), row(2)), status=Status.DONE))

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(30)
    end = run_job(second, BASE, wait=False)
    assert (end.record.status, end.reused, waits.is_set()) == (Status.UNFINISHED, False, False)

    def tell(event: Event) -> None:
        if isinstance(event, Waiting):
            waits.set()
        if isinstance(event, Progressed) and event.epochs == 1:
            followed.set()

    end = run_job(second, BASE, tell)
    thread.join()
    assert followed.is_set()
    assert (end.record.status, end.record.epochs, end.reused) == (Status.DONE, (row(1), row(2)), True)


def test_a_waiting_job_can_be_stopped_and_a_run_under_way_does_not_fail(tiny: ImageData, tmp_path: Path) -> None:
    second = runner(tiny, tmp_path)
    store, record = second.store, second.blank(BASE)
    held, over = threading.Event(), threading.Event()

    def first() -> None:
        with store.lock(record.run_id):
            held.set()
            over.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(30)
    end = run_job(second, BASE, stop=lambda: True)
    assert (end.record.status, end.reused) == (Status.UNFINISHED, False)
    assert second.record_failure(BASE, "killed").status is Status.FAILED
    assert store.load(record.run_id) is None  # it is the other's to write
    over.set()
    thread.join()
    assert second.record_failure(BASE, "killed") == store.load(record.run_id)
    store.finish(replace(record, epochs=(row(1), row(2)), status=Status.DONE))
    assert second.record_failure(BASE, "killed").status is Status.DONE
    assert runner(tiny, tmp_path, fresh=True).record_failure(BASE, "killed").status is Status.FAILED


@pytest.fixture(params=["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as Lustre is without `-o flock`; a lease on it lasts a second."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*args: object) -> None:
        raise OSError(getattr(errno, request.param), "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("maldrop_cli.runs.store.LEASE_SECONDS", 1.0)


KILLED = """
import os, socket, sys
from maldrop_cli.runs import store
socket.gethostname = lambda: "node7"
store.LEASE_SECONDS = 1.0
def flock(*args): raise OSError(38, "no locks here")
import fcntl
fcntl.flock = flock
with store.Store(store.Path("maldrop-runs")).lock(sys.argv[1]):
    os._exit(9)
"""


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_lease_of_a_killed_run_ends(maldrop: Run) -> None:
    """On another machine, so that nobody here can tell that its process is dead."""
    command = ("train", *QUICK)
    assert maldrop(*command, "--out", "other").code == 0
    [run_id] = [path.name for path in Path("other").iterdir() if path.name != ".locks"]
    assert not list(Path("other").glob(".locks/*.lease"))
    assert subprocess.run([sys.executable, "-c", KILLED, run_id]).returncode == 9
    result = maldrop(*command)
    assert result.code == 0, result.err
    waiting, whose = result.told
    assert waiting.endswith("another process trains it; waiting for its result")
    assert re.search(rf"\.locks/{run_id}\.lease is held by process \d+ on node7; should that be dead, ", whose)
    assert whose.endswith("this goes on after 1 s, or at once if the file is deleted")


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_lease_is_renewed(tmp_path: Path) -> None:
    store, polls = Store(tmp_path), iter(range(25))
    with store.lock("abc") as held, store.lock("abc", give_up=lambda: next(polls, None) is None) as second:
        assert (held, second) == (True, False)  # for two and a half seconds
    with store.lock("abc") as held:
        assert held


def test_a_disk_that_fails_is_no_file_system_without_locks(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(*args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    result = maldrop("train", *QUICK, "-q")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert "the results folder" in result.err
    assert "fails: Input/output error" in result.err


# --- the command line ------------------------------------------------------------------------------------------------

SWEEP = ("sweep", *TINY, "--epochs", "6", "--rho", "0..256/4", "--lr", "0.02", "--threads", "1")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What SWEEP measures in this process, one run after the other."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run([*SWEEP, "-q", "--out", str(folder / "runs"), "--csv", str(folder / "s.csv")]) == 0
    return measured(str(folder / "s.csv"))


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "maldrop_cli", *SWEEP, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def results(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("maldrop-runs/*/result.json")}


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_workers_give_what_one_gives(maldrop: Run, uninterrupted: list[dict[str, str]]) -> None:
    result = maldrop(*SWEEP, "--workers", "2", "--csv", "s.csv")
    assert result.code == 0, result.err
    assert measured("s.csv") == uninterrupted
    assert "2 runs at a time, so that times are those of a shared machine." in result.out
    assert "36/36 epochs, about" in result.err
    assert {record.workers for record in Store(Path("maldrop-runs")).scan()} == {2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maldrop_cli.executors.processes.processes", None)  # not even begun where there is nothing to do
        again = maldrop(*SWEEP, "--workers", "2")
    assert again.out == result.out
    assert "6 of 6 runs already finished" in again.err


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux shows them")
def test_sigkill_of_a_worker_and_of_all_loses_no_run(
    maldrop: Run, tmp_path: Path, uninterrupted: list[dict[str, str]]
) -> None:
    process = start(tmp_path, "--workers", "2")
    until(lambda: list(tmp_path.glob("maldrop-runs/*/checkpoint.pt")))
    workers = [pid for pid in children(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: len(results(tmp_path)) >= 2)
    offspring = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    until(lambda: not any(map(alive, offspring)), 30)
    kept = results(tmp_path)
    assert 2 <= len(kept) <= 6
    result = maldrop(*SWEEP, "--workers", "2", "--csv", "s.csv")
    assert result.code == 0, result.err
    assert measured("s.csv") == uninterrupted
    assert {path: content for path, content in results(tmp_path).items() if path in kept} == kept
    records = list(Store(tmp_path / "maldrop-runs", pytest.fail).scan())
    assert [[row.epoch for row in record.epochs] for record in records] == [[1, 2, 3, 4, 5, 6]] * 6
    assert not [path for path in tmp_path.rglob(".*.*") if path.suffix != ".lock"]  # no half-written file is left


@posix
def test_ctrl_c_stops_workers_and_says_how_to_go_on(
    maldrop: Run, tmp_path: Path, uninterrupted: list[dict[str, str]]
) -> None:
    process = start(tmp_path, "--workers", "2", "--checkpoint-every", "0")
    until(lambda: list(tmp_path.glob("maldrop-runs/*/epochs.jsonl")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "Ctrl-C once more stops at once" in err
    assert err.splitlines()[-1].endswith(f"go on with: maldrop {' '.join(SWEEP)} --workers 2 --checkpoint-every 0")
    assert list(tmp_path.glob("maldrop-runs/*/checkpoint.pt"))
    result = maldrop(*SWEEP, "--csv", "s.csv")
    assert result.code == 0
    assert "resumed from a checkpoint" in result.err
    assert measured("s.csv") == uninterrupted


def test_fail_fast_and_the_list_at_the_end(maldrop: Run) -> None:
    command = ("compare", *QUICK, "--dropout", "none,vanilla,maldrop", "--seeds", "2", "--lr", "2e9", "-q")
    result = maldrop(*command, "--fail-fast", "--csv", "c.csv")
    assert result.code == 1
    assert "1 of 6 runs did not finish: none, seed 0: diverged" in result.err
    assert "--fail-fast left 5 runs for the next time" in result.err
    assert len(measured("c.csv")) == 3
    assert "6 of 6 runs did not finish" in maldrop(*command).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--executor", "threads"), "one of: auto, serial, processes, ray"),
        (("--executor", "serial", "--workers", "2"), "one run at a time"),
        (("--workers", "0"), "--workers"),
        (("--retries", "-1"), "--retries"),
        (("--checkpoint-every", "-1"), "--checkpoint-every"),
        (("--ray-address", "auto"), "--ray-address is for --executor ray, and this is auto"),
        (("--workers", "2", "--gpus-per-run", "0.5"), "--gpus-per-run is for --executor ray, and this is processes"),
        (("--executor", "ray"), "pip install 'maldrop-cli[ray]'"),
    ],
)
def test_wrong_flags(arguments: tuple[str, ...], message: str, maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for command in ("compare", "sweep"):
        result = maldrop(command, *TINY, *arguments)
        assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
        assert message in result.err
    assert not Path("maldrop-runs").exists()


# --- Ray -------------------------------------------------------------------------------------------------------------

# a cluster of the test's own: another test, in another process, may have one
RAY = ("--executor", "ray", "--ray-address", "local")


@pytest.mark.filterwarnings("default")  # Ray's are not ours
def test_ray_gives_what_one_process_gives(maldrop: Run, uninterrupted: list[dict[str, str]]) -> None:
    pytest.importorskip("ray")
    result = maldrop(*SWEEP, *RAY, "--workers", "2", "--cpus-per-run", "0.5", "--csv", "s.csv", "-q")
    assert result.code == 0, result.err
    assert measured("s.csv") == uninterrupted
    result = maldrop(*SWEEP, *RAY, "--gpus-per-run", "1000", "--seeds", "2")
    assert (result.code, "a run needs 1 CPUs and 1000 GPUs" in result.err) == (2, True)


@pytest.mark.filterwarnings("default")
def test_on_ray_a_killed_worker_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    needs = ray_cluster.Needs(0.5, 0)
    with ray_cluster.connected("local") as ray:
        queue = Queue([DIES_ONCE, FINE, RAISES, DIES])
        ray_cluster.ray_cluster(ray, queue, fake_work.open_work, 2, needs)
        assert queue.statuses() == [Status.DONE, Status.DONE, Status.FAILED, Status.FAILED]
        assert "its worker died" in queue.records()[3].reason
        assert queue.started().count(DIES_ONCE) == 2
        with pytest.raises(MaldropError, match="the disk is full"):
            ray_cluster.ray_cluster(ray, Queue([GIVES_UP]), fake_work.open_work, 2, needs)


def test_a_record_from_another_machine_is_stored_here(tmp_path: Path, tiny: ImageData) -> None:
    record = run_job(runner(tiny, tmp_path / "far"), BASE).record
    near = runner(tiny, tmp_path / "near")
    near.store_remote(record)
    assert near.store.load(record.run_id) == record
    unfinished: RunRecord = replace(record, run_id="other", status=Status.UNFINISHED)
    near.store_remote(unfinished)
    assert near.store.load("other") is None


@pytest.mark.parametrize(
    ("changes", "models", "runs", "images", "device", "expected"),
    [
        ({}, ["cnn"], 8, 100_000, "cpu", (Executor.PROCESSES, 4, 1)),
        ({}, ["cnn"], 3, 100_000, "cpu", (Executor.PROCESSES, 3, 1)),
        ({}, ["cnn"], 8, 99_999, "cpu", (Executor.AUTO, None, None)),
        ({}, ["cnn", "resnet18"], 8, 10**6, "cpu", (Executor.AUTO, None, None)),
        ({}, ["cnn"], 1, 10**6, "cpu", (Executor.AUTO, None, None)),
        ({}, ["cnn"], 8, 10**6, "cuda", (Executor.AUTO, None, None)),
        ({"workers": 1}, ["cnn"], 8, 10**6, "cpu", (Executor.SERIAL, 1, None)),
        ({"threads": 2}, ["cnn"], 8, 10**6, "cpu", (Executor.SERIAL, None, 2)),
    ],
)
def test_runs_go_beside_each_other_where_nothing_was_said_and_it_is_quicker(
    changes: dict[str, Any], models: list[str], runs: int, images: int, device: str, expected: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    settled = Execution(**changes).settled(models, runs, images, device)
    assert (settled.executor, settled.workers, settled.threads_per_run) == expected


def test_a_long_comparison_takes_a_core_a_run(maldrop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr("maldrop_cli.executors.WORTH_PROCESSES", 4 * 2 * 120)
    command = ("compare", *QUICK, "--dropout", "none,maldrop", "--seeds", "2", "-q")
    assert maldrop(*command, "--csv", "c.csv").code == 0
    assert {row["workers"] for row in rows("c.csv")} == {"2"}
    assert {row["threads"] for row in rows("c.csv")} == {"1"}
