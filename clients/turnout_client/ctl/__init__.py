"""`turnoutctl`: the admin plane on the command line. Each module is a few commands, or one thing that all need."""
