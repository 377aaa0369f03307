package org.clinic.batch;

import org.clinic.Limits;
import org.clinic.config.Settings;
import org.clinic.model.Visit.Kind;
import static org.clinic.model.Visit.Kind.URGENT;

public class Main {
    public static void main(String[] arguments) {
        Kind kind = Limits.clamp(Settings.load().visits()) > 1 ? URGENT : Kind.ROUTINE;
        System.out.println(kind);
        new Job().run();
    }
}
