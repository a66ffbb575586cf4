"""Independent answers for the tests: brute force, other enumerators, corpora, random problems."""
