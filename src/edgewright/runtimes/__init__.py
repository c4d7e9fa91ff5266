"""Runtimes: a Model becomes files, the files become a Session."""
