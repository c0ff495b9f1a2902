"""What protected answers keep and what they give away: labels, Square attack, membership inference."""
