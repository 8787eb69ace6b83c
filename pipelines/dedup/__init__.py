"""Which documents are copies of one another, and which one of each stays: exact hashes, MinHash LSH, survivors."""
