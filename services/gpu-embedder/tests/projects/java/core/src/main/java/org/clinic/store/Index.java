package org.clinic.store;

import java.util.Optional;
import java.util.function.Predicate;
import org.clinic.model.Patient;
import org.clinic.model.Person;

class Index {
    Optional<Patient> search(Predicate<Person> wanted) {
        return new Shelf().look();
    }
}

class Shelf {
    Optional<Patient> look() {
        return Optional.empty();
    }
}
