package org.clinic.config;

public record Settings(String title) {
    public static Settings load(String[] arguments) {
        return new Settings(arguments[0]);
    }
}
