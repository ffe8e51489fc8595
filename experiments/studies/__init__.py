"""One module a study; a study that grows becomes a folder."""
