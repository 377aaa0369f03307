package org.clinic.store;

import java.util.Optional;
import java.util.function.*;

import org.clinic.model.*;

public class Store {
    private final Index index = new Index();

    public Optional<Patient> find(Predicate<Person> wanted) {
        return index.search(wanted);
    }
}
