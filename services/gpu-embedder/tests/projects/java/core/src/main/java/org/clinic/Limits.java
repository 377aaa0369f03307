package org.clinic;

public final class Limits {
    public static final int VISITS_MAX = 20;
    static final int HIDDEN = 1;

    private Limits() {}

    public static int clamp(int value) {
        return Math.min(value, VISITS_MAX);
    }
}
