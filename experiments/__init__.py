"""The command line, files, plots and studies: the only place for any of them."""
