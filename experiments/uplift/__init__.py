"""Uplift: who gains from which variant, whether that can be used, and what a policy made of it is worth."""
