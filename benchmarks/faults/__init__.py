"""Put the same faults to this project's log and to other packages that keep records of what agents or people did."""
