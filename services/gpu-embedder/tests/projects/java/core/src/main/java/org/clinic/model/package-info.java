/** Who comes, and what for. */
@Reviewed(by = "board")
package org.clinic.model;

import org.clinic.notes.Reviewed;
