"""The first release's name of the config imported here."""
