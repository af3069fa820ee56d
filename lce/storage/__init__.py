"""The weights of one model, in memory or on a disk, and the files that hold them."""
