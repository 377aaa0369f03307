package org.clinic.model;

public abstract class Person {
    protected String name;

    public String get() {
        return name;
    }
}
