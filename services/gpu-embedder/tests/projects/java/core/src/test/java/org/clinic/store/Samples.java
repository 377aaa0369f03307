package org.clinic.store;

final class Samples {
    static String sampleName() {
        return "Ada";
    }
}
