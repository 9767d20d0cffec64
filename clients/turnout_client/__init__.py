"""Clients of a Turnout server. Now: the admin plane (`admin`), declared states (`desired`, `plan`), `turnoutctl`."""
