"""Features of videos, a row for each window of time: what temporal localisation works on (`ccs features`)."""
