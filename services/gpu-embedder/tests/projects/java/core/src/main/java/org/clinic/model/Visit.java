package org.clinic.model;

import static org.clinic.Limits.VISITS_MAX;

public record Visit(Kind kind, int number) {
    public enum Kind { ROUTINE, URGENT }

    public Visit {
        if (number > VISITS_MAX) throw new IllegalArgumentException();
    }
}
