"""Reference applications, built on the verbs alone."""
