module org.clinic.web {
    requires java.net.http;
    exports org.clinic.web;
}
