package org.clinic.web;

import java.util.HashMap;
import java.util.Map;
import org.clinic.store.Store;
import org.clinic.web.pages.Page;

class Router {
    private final Map<String, Page> pages = new HashMap<>();

    Router(Store store) {}

    void add(Page page) {
        pages.put(page.path(), page);
        page.render(new org.clinic.web.text.Escaper());
    }
}
