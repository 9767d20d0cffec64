"""Load generation and measurement: schedules, generators, figures, reports. The scripts beside it are its commands."""
