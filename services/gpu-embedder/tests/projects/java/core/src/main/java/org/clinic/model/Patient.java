package org.clinic.model;

import java.util.ArrayList;
import java.util.List;

public class Patient extends Person {
    private final List<Visit> visits = new ArrayList<>();

    public void add(Visit visit) {
        visits.add(visit);
    }

    public static class Card {
        public String number;

        public static class Stripe {}
    }
}
