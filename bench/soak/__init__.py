"""Hours in minutes: a Guard under mixed traffic, attacks and faults; what grows, and what is answered wrongly."""
