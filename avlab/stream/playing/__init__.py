"""What has arrived on its way to eyes and ears: presentation, sound devices, taps for views."""
