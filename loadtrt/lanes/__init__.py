"""Lanes × arrivals → records."""
