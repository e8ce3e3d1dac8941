"""What a network still recognises once something is hidden: the claim of the paper's section 1."""
