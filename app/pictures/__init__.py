"""Pictures as files, with the settings that they carry."""
