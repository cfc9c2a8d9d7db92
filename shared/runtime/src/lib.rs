//! What every Berth binary shares at run time: arguments, logs, metrics, probes, the controller loop, claims and events.
