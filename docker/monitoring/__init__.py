"""What is made from the table of instruments: its documentation, the dashboard, rules and alerts."""
