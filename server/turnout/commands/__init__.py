"""What `turnout` does beside serving, one module for each command: its flags, and what it shows."""
