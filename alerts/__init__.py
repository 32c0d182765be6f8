"""Rules -> alerts: what an alarm says (`reasons`) and how alerts are shown on the console (`console`)."""
