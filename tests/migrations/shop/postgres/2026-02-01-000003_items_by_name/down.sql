DROP INDEX items_by_name_and_id;
DROP INDEX items_by_name;
