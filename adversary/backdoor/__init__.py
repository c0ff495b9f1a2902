"""Backdoor triggers: what a poisoned model answers with the label of its poisoner."""
