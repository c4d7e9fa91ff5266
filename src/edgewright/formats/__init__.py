"""File formats of other runtimes: reading and writing, nothing about what a network means."""
