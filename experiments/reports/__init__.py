"""What a command leaves: folders, tables, figures, kept checks (and `templates/`)."""
