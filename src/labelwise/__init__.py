"""Choose which atomic structures are worth a quantum-chemistry label."""
