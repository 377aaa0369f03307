package org.clinic.store;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.clinic.store.Samples.*;

import org.junit.jupiter.api.Test;
import org.clinic.model.Patient.Card;
import org.clinic.model.Patient.Card.Stripe;

class StoreTest {
    @Test
    void findsNobody() {
        Card card = new Card();
        assertTrue(new Store().find(person -> person.get().equals(sampleName())).isEmpty());
    }
}
