"""What stands between transmitter and receiver: fading, multiple access, noise, power, SNR and bandwidth."""
