from shop import views
from shop.views import index

routes = {"/": index, "/about": views.about}
