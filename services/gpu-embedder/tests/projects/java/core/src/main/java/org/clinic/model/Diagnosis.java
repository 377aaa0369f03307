package org.clinic.model;

public interface Diagnosis {
    String code();
}
