"""What proof of work costs: honest callers their time, thieves their processors'."""
