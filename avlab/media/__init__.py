"""Pictures and sound: files, codecs, devices."""
