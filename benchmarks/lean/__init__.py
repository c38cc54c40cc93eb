"""What a version, a command, an idle stack and a lone request cost."""
