package org.clinic.config;

/** Another class of the same name, of another program. */
public class Settings {
    public static Settings load() {
        return new Settings();
    }

    public int visits() {
        return 3;
    }
}
