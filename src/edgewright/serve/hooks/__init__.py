"""Hooks: `preprocess`, `run_model` and `postprocess` of a `processor.py` that lies in a bundle, named in its manifest.

`code` reads such a file and says what is wrong with it, `adding` puts it into a bundle, `running` runs it around a network.
"""
