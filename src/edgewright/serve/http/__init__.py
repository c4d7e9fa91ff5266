"""HTTP: the protocol's paths, photos, figures and documentation over one asynchronous handler (RSGI, by granian)."""
