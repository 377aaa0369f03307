package org.clinic.batch;

import java.util.List;
import java.util.*;
import org.clinic.model.Diagnosis;
import org.clinic.model.Patient;

class Job implements Runnable {
    Map<String, Patient> patients = new HashMap<>();

    public void run() {
        List<Diagnosis> found = List.of();
        patients.get("x");
    }
}
